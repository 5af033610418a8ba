#!/usr/bin/env python
# coding: utf-8

# # Churn

# In[1]:


import six


# In[2]:


rows = [1, 2, 3]
rows[:2]


# In[3]:


six.print_("rows:", len(rows))
